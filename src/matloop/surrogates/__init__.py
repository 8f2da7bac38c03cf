"""Statistical models that learners fit and evaluators ask."""
