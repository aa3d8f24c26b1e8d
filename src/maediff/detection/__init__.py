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
    participants       results of a BIDS dataset, participant by participant
    methods_text       the methods paragraph of a report
    benchmark          benchmark (`maediff benchmark`)
"""
