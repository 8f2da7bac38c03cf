"""Generators that learn: one data layer, one training loop, one model file, many architectures.

An *architecture* (`architecture.Architecture`) is a frozen dataclass whose fields are its
hyperparameters. It turns crystals into rows of arrays, rows into batches, batches into a loss, and
a request into crystals; it knows nothing of optimisers, files or campaigns. Architectures are
plugins, registered under ``matloop.architectures``.

============================ ================================================================
module                       what it does, the same for all architectures
============================ ================================================================
`crystals`                   reads training data: cells, properties, split, what was left out
`training`                   one training loop: resumable, killable, validated
`model_file`                 one file: weights as safetensors, and the model card
`sampling`                   asks a trained model, and holds the constraints after sampling
`learned`                    the generator plugin ``learned``: a trained model in a portfolio
`guidance`                   penalties that are pushed down while a crystal is drawn
`representations`            crystals as symmetric orbits, coordinates, text, voxels
`architectures`              the models themselves
============================ ================================================================
"""
