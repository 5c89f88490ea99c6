"""NannyML's confidence-based performance estimation: the share of errors that it expects in each chunk of answers.

Source: NannyML documentation, "Estimating performance for multiclass classification".
"""

import sys

import nannyml
import numpy as np
import pandas as pd

given = np.load(sys.argv[1])
probabilities, reference = given["probabilities"], int(given["reference"])
columns = {number: f"p{number}" for number in range(probabilities.shape[1])}
answers = pd.DataFrame(probabilities, columns=[*columns.values()])
answers = answers.assign(label=given["labels"], predicted=probabilities.argmax(axis=1))
estimator = nannyml.CBPE(
    y_pred_proba=columns,
    y_pred="predicted",
    y_true="label",
    problem_type="classification_multiclass",
    metrics=["accuracy"],
    chunk_size=int(given["chunk"]),
)
estimator.fit(answers[:reference])
found = estimator.estimate(answers[reference:].drop(columns="label")).filter(period="analysis").to_df()
np.save(sys.argv[2], 1.0 - found["accuracy", "value"].to_numpy())
