"""A study's results as a table: python examples/results_in_pandas.py runs/quick"""

import sys
from pathlib import Path

import pandas as pd

results = pd.read_csv(Path(sys.argv[1]) / "report/results.csv")
print(results.columns.tolist())
varied = [column for column in ("global_batch_size", "negatives_per_anchor") if column in results]
table = results.groupby(varied)["top1"].agg(["mean", "std", "count"])
print(table.round(2))
