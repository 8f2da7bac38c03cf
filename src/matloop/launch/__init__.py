"""Where a campaign runs: in this process, or elsewhere."""
