"""The lab: nodes in network namespaces whose links are shaped, lossy, delayed or cut on demand."""
