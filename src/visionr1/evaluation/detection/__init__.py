"""Detection, measured: COCO's figures, matching, errors of boxes."""
