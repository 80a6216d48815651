module assistantplatform.io/bench/load

go 1.21
