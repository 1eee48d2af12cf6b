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
# Text is text: a node may be called "NA" or "7", which pandas would take for nothing or a number.
TEXT = ["host", "source", "target", "probe", "run_id", "outcome", "error"]
rows = pd.read_csv(
    CSV,
    parse_dates=["timestamp"],
    dtype=dict.fromkeys(TEXT, str),
    keep_default_na=False,
    na_values=[""],
)
pings = rows[rows["probe"] == "ping"]
# --8<-- [end:read]

# --8<-- [start:outcomes]
print("What was found:")
print(rows.groupby(["probe", "outcome"]).size().to_string(), "\n")
# --8<-- [end:outcomes]

# --8<-- [start:matrix]
# A median of medians: one bad round does not move it.
pairs = pings.groupby(["source", "target"])
rtt = pairs["rtt_median_ms"].median().unstack()
print("Round-trip time, ms:")
print(rtt.to_string(float_format="{:.3g}".format, na_rep="-"), "\n")
# --8<-- [end:matrix]

# --8<-- [start:loss]
# Packets are added, not percentages: rounds may have sent differently many.
packets = pairs[["sent", "received"]].sum()
loss_pct = 100 * (1 - packets["received"] / packets["sent"])
print("The five paths that lost most, percent:")
print(loss_pct.sort_values(ascending=False).head(5).round(1).to_string(), "\n")
# --8<-- [end:loss]

# --8<-- [start:throughput]
tests = rows[(rows["probe"] == "throughput") & (rows["outcome"] == "ok")]
if not tests.empty:
    pairs = tests.groupby(["source", "target"])
    mbps = pairs["throughput_mbps"].median().unstack()
    print("Throughput, Mbit/s:")
    print(mbps.to_string(float_format="{:.3g}".format, na_rep="-"), "\n")
# --8<-- [end:throughput]

# --8<-- [start:change]
# Each source's loss before and after the middle of the time.
when = pings["timestamp"]
middle = when.min() + (when.max() - when.min()) / 2
half = (when > middle).map({False: "first half", True: "second half"}).rename("")
packets = pings.groupby(["source", half])[["sent", "received"]].sum()
halves = (100 * (1 - packets["received"] / packets["sent"])).unstack()
print("Loss of each source, percent:")
print(halves.round(1).to_string(), "\n")
# --8<-- [end:change]

# --8<-- [start:plot]
plt.rcParams["date.converter"] = "concise"
figure, (above, below) = plt.subplots(2, sharex=True, figsize=(8, 5))
figure.set_layout_engine("constrained")
for source, path in pings[pings["target"] == TARGET].groupby("source"):
    time = path["timestamp"]
    above.plot(time, path["rtt_median_ms"], marker=".", label=source)
    below.plot(time, path["packet_loss_pct"], marker=".")
above.set(title=f"to {TARGET}", ylabel="round-trip time, ms", ylim=(0, None))
below.set(xlabel="time, UTC", ylabel="loss, percent", ylim=(0, None))
above.legend(title="from", loc="center left", bbox_to_anchor=(1.0, 0.5))
figure.savefig(PICTURE)
print(f"plot in {PICTURE}")
# --8<-- [end:plot]
