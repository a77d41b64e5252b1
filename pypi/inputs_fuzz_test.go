package pypi

import "testing"

func checkWants(t *testing.T, r *Requirements) { t.Helper() }
