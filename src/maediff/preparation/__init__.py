"""One scan from its file to the model's grid: brain, N4, MNI152, quality, intensities.

Public modules and names:

    config             PreparationConfig, REGISTERED
    prepare            prepare, PreparedScan
    steps              run_steps, Stepped, Tools
    onto_grid          prepare_scan, Prepared
    grid               GridConfig, Grid, model_grid, atlas_grid, to_grid, lesion_free_slices
    intensities        NormaliseConfig, normalise, standardise, learn_landmarks, ...
    background         brain_from_background, RawScanError
    brain_extraction   BrainConfig, extract_brain, brain_from_t1
    bias_correction    BiasConfig, correct_bias
    registration       RegistrationConfig, Alignment, align_to_atlas, align_rigidly
    atlas              template.load_atlas, reduced.load_reduced_atlas
    quality            QualityConfig, check_against_atlas, check_contrast, check_voxels
    picture            write_picture
    resample           resample
"""
