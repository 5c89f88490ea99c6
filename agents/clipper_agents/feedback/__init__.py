"""What a record of the feedback topic does to the selection rows, for routers and for `replay verify` alike.

`feedback_step` folds feedback and markers into rows; `restore_markers` says which markers count. Join and scores are
those of the library, `clipper_stream.feedback`.
"""
