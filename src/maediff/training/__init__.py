"""Training: from a cohort and a method to a run folder.

Public names: `train.train`, `config.TrainConfig`, `config.resolve_training`, `loop.TrainingRun`,
`command.training_command`.
"""
