"""Whether clients of real processes see one register at a time: a checker, a recorder and a run that is checked."""
