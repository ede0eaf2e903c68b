# mypy: ignore-errors
"""scikit-learn's side of the probe: logistic regression on the differences. Runs in an environment of its own and imports no
code of this project. Arguments: JSON with folder, amount and threads. Prints one line of JSON."""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

asked = json.loads(sys.argv[1])
made = np.load(Path(asked["folder"]) / f"probe-{asked['amount']}.npz")
x, y, penalty = made["differences"], made["won"], float(made["penalty"])
threadpool_limits(asked["threads"])
wall, cpu = time.perf_counter(), time.process_time()
fitted = LogisticRegression(C=1 / penalty, fit_intercept=False, max_iter=1000).fit(x, y)
told = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu, "units": 1}
margin = x.astype(np.float64) @ fitted.coef_[0].astype(np.float64) * np.where(y, 1, -1)
told["loss"] = float((np.logaddexp(0, -margin).sum() + penalty / 2 * (fitted.coef_**2).sum()) / len(y))
told["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps(told), flush=True)
