"""All that a result depends on, without click, DVC, MLflow or figures.

In the order in which data flow: `schema` and `config` read params.yaml; `dataset` reads the images
that `digits fetch` wrote; `models` builds a network; `augmentation` distorts images; `train_step`
has the arithmetic of a step; `training.train_model` trains a version; `evaluation.evaluate_model`
scores networks.

The commands in `digits.cli` read the inputs, call one function of these and write what it returned.
`digits train` calls `train_model` for the version that dvc.yaml names, with params.yaml's seed.
`digits evaluate` calls `evaluate_on` for each network, with its TTA. A study (`digits.study`) calls
both with other seeds or parameters, and passes several networks for an ensemble.
"""
