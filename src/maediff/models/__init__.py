"""Trained methods: read, find by name, calibrate, export.

Public modules and names:

    model           read_model, TrainedMethod, RunSettings
    thresholds      Threshold, Thresholds, NoThresholds
    calibration     Calibration, read_calibration (content of calibration.json)
    calibrate       calibrate, calibrate_folder
    catalogue       list_models, models, pick, describe
    card            Card, Scores, Source, read_card
    card_text       make_card, render_card
    reference       split_reference, split_mean, locate
    folder          read_config, write_config, config_of, prepared_for, trained_on
    reconstruction  HealthyReconstructions, read_reconstructions
    weights         read_weights, read_trained_weights, save_model
    export          export_model
    hub             load_from_hub, save_to_hub_folder
"""
