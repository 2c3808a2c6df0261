"""Drills, the pure part: may a failure be rehearsed now, what is promised, what was seen, was it kept, and the report."""
