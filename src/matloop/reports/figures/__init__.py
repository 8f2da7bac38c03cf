"""Figures of a report, each a function of a `CampaignSummary`."""
