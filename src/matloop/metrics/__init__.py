"""The field's metrics for samples of any generator, each with its denominator."""
