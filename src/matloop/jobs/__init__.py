"""One generic Maker per verb: propose, evaluate, decide, learn, advance."""
