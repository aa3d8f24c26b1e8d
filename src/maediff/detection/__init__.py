"""One scan and one model to a Detection; folders of scans.

Public modules and names:

    detector           load, Detector, make_detector
    result             Detection, Quality, ModelGridResult
    detect             detect, DetectOptions, DetectReport (`maediff detect`)
    to_scan            from_grid, mask_from_grid
    findings           write_regions, write_findings
    locations          locate_region
    volumes            make_volumes, load_volumes
    bids               prepare_derivative, write_derivative
    participants       run_participants, collect_group (the BIDS App)
    session            detect_session, SessionDetector: several contrasts of one person
    sidecars           make_sidecar, describe_image
    methods_text       describe_methods
    benchmark          benchmark (`maediff benchmark`)
    benchmark_detect   benchmark_detect (`maediff benchmark --scans`)
"""
