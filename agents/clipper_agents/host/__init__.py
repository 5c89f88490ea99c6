"""The host of one model version: rows of many request frames in, batches through the model, output frames back.

`batching` decides and knows neither clock nor event loop; `engine` carries its decisions out; `app` is the process. A
router runs the same engine in its own process for colocated models, with a callback in place of the topics.
"""
