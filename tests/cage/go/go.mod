module caged

go 1.19
