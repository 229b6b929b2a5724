// Package programs pins the Kubernetes programs that the cluster tests run: the `tool` lines of go.mod name them.
package programs
