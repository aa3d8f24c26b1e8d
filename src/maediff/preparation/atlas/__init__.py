"""The MNI152 template: as nilearn ships it, and reduced for registration, quality and locations.

Public modules and names:

    template    Atlas, load_atlas
    reduced     ReducedAtlas, AtlasLevel, Tissue, load_reduced_atlas

`mni152.npz` holds the reduced template. `tools/make_atlas.py` makes it from the full template;
reading it takes a tenth of the time of importing nilearn. `LICENSE.txt` has its terms.
"""
