"""How an engine runs on this CPU: the most faithful setting that speaks in real time, measured at start."""
