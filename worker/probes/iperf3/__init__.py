"""
Throughput by iperf3: the tool, its two ends, its JSON as numbers.

In: an address and options. Out: measurements of both directions. Uses `icmp`, `mtu`,
`interception`.
"""
