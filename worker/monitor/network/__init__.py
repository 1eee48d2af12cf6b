"""The network as the host program sees it: hosts measured in a loop or once."""
