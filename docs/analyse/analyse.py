"""
Reads a CSV of ptzmesh: which paths are slow, which lose, what changed, and when.

    python analyse.py mesh.csv mesh.svg hub
"""

import sys

import matplotlib

matplotlib.use("Agg")  # no display is needed
import matplotlib.pyplot as plt
import pandas as pd

# --8<-- [start:read]
CSV, PICTURE, TARGET = sys.argv[1:]
rows = pd.read_csv(CSV, parse_dates=["timestamp"])
pings = rows[rows["probe"] == "ping"]
# --8<-- [end:read]

# --8<-- [start:outcomes]
print("What was found:")
print(rows.groupby(["probe", "outcome"]).size().to_string(), "\n")
# --8<-- [end:outcomes]

# --8<-- [start:matrix]
# A median of medians: one bad round does not move it. Rows are sources, columns are targets.
rtt = pings.pivot_table("rtt_median_ms", index="source", columns="target", aggfunc="median")
print("Round-trip time, ms:")
print(rtt.to_string(float_format="{:.3g}".format, na_rep="-"), "\n")
# --8<-- [end:matrix]

# --8<-- [start:loss]
# Packets, not percentages, are added: rounds need not have sent equally many.
packets = pings.groupby(["source", "target"])[["sent", "received"]].sum()
loss_pct = 100 * (1 - packets["received"] / packets["sent"])
print("The five paths that lost most, percent:")
print(loss_pct.sort_values(ascending=False).head(5).round(1).to_string(), "\n")
# --8<-- [end:loss]

# --8<-- [start:throughput]
tests = rows[(rows["probe"] == "throughput") & (rows["outcome"] == "ok")]
if not tests.empty:
    mbps = tests.pivot_table("throughput_mbps", index="source", columns="target", aggfunc="median")
    print("Throughput, Mbit/s:")
    print(mbps.to_string(float_format="{:.3g}".format, na_rep="-"), "\n")
# --8<-- [end:throughput]

# --8<-- [start:change]
# What changed: each node's loss before and after the middle of the time that was measured.
middle = pings["timestamp"].min() + (pings["timestamp"].max() - pings["timestamp"].min()) / 2
half = (pings["timestamp"] > middle).map({False: "first half", True: "second half"})
packets = pings.groupby(["source", half])[["sent", "received"]].sum()
halves = (100 * (1 - packets["received"] / packets["sent"])).unstack()
print("Loss of each source, percent:")
print(halves.round(1).to_string(), "\n")
# --8<-- [end:change]

# --8<-- [start:plot]
plt.rcParams["date.converter"] = "concise"
figure, (above, below) = plt.subplots(2, sharex=True, figsize=(8, 5), layout="constrained")
for source, path in pings[pings["target"] == TARGET].groupby("source"):
    above.plot(path["timestamp"], path["rtt_median_ms"], marker=".", label=source)
    below.plot(path["timestamp"], path["packet_loss_pct"], marker=".")
above.set(title=f"to {TARGET}", ylabel="round-trip time, ms", ylim=(0, None))
below.set(xlabel="time, UTC", ylabel="loss, percent", ylim=(0, None))
above.legend(title="from", loc="center left", bbox_to_anchor=(1.0, 0.5))
figure.savefig(PICTURE)
print(f"plot in {PICTURE}")
# --8<-- [end:plot]
