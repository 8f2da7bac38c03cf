"""What a campaign found, for people: funnel, figures, HTML."""
