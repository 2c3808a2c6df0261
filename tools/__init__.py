"""What people run: the kvorum command, the lab, the demo, benchmarks."""
