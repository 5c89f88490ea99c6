"""What a record of the feedback topic does to the selection rows, for routers and for `replay verify` alike.

Join and scores are those of the library, `clipper_stream.feedback`.
"""
