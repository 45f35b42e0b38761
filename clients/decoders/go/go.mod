module github.com/seriatim-log/seriatim/clients/decoders/go

go 1.24

require (
	github.com/seriatim-log/seriatim/clients/go v0.0.0
	google.golang.org/genproto/googleapis/rpc v0.0.0-20250707201910-8d1bb00bc6a7
	google.golang.org/protobuf v1.36.6
)

require (
	golang.org/x/net v0.41.0 // indirect
	golang.org/x/sys v0.33.0 // indirect
	golang.org/x/text v0.26.0 // indirect
	google.golang.org/grpc v1.75.0 // indirect
)

replace github.com/seriatim-log/seriatim/clients/go => ../../go
