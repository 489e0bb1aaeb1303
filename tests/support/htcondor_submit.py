"""Lets HTCondor's own library make the job ad of each submit description on stdin (a JSON list); prints them as a JSON list.

Run in the directory of the files that the descriptions name, with ``CONDOR_CONFIG=/dev/null``: there is no pool. A description that the
library refuses gives what it said.
"""

from __future__ import annotations

import json
import sys

import htcondor


def ad(description: str) -> str:
    try:
        return next(htcondor.Submit(description).jobs(count=1, clusterid=4711)).printOld()
    except htcondor.HTCondorException as refused:
        return f"refused: {refused}"


if __name__ == "__main__":
    print(json.dumps([ad(description) for description in json.load(sys.stdin)]))
