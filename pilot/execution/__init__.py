"""Running a payload: state machine, limits, supervision."""
