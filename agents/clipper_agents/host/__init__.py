"""The host of one model version: rows of many request frames in, batches through the model, output frames back.

`core` decides and knows neither clock nor event loop; `engine` carries its decisions out; `worker` is the process. A
router runs the same engine in its own process for colocated models, with a callback in place of the topics.
"""
