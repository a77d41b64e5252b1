//go:build !linux

package bundle

import "os"

func startWriteback(*os.File, int64, int64) {}

func dropCache(*os.File) {}

func readAhead(*os.File) {}
