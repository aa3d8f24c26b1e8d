"""Evaluation: anomaly maps and lesion masks to scores, intervals and tables.

Public modules and names:

    evaluate      evaluate, group_names
    compare       plan_runs, compare, Budget, Plan
    scoring       score, ScoringConfig, Contender
    metrics       auprc, dice, lesion_counts, reconstruction_l1, ...
    intervals     bootstrap_interval, clopper_pearson, paired_difference
    summary       summarise, differences
    table         make_tables, markdown_table
"""
