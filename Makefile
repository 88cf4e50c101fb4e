# Everything here but test-web needs Go and nothing else: tools run from pinned modules.
BUF    = go run github.com/bufbuild/buf/cmd/buf@v1.75.0
LINT   = go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.PHONY: build demo demo-cluster test test-web test-docs faults faults-short faults-cluster groups clients lint generate check-generated breaking bench bench-start bench-restart bench-clients corruption \
	fuzz licenses clean

build:
	go build -o bin/linksgate ./cmd/linksgate

## demo: the whole gateway on a temporary directory, with a simulated Linksfield and a live subscriber
demo:
	go run ./cmd/linksgate demo

## test: every test; under five minutes on two cores
test:
	go test ./...

## test-web: REST behind a real nginx, in a real browser and against its OpenAPI document; under a minute. Needs nginx, chromium,
## curl and schemathesis, which .ci/run installs
SCHEMATHESIS ?= schemathesis
test-web:
	go test -count 1 -timeout 5m ./server/web -web -schemathesis "$(SCHEMATHESIS)"

## test-docs: runs every command of the README and of docs/. Needs bash, curl and jq
test-docs:
	go test -count 1 -timeout 10m ./docs -docs

## faults: everything that can break does, at random, for DURATION; SEED makes a schedule come again, 0 chooses a new one
DURATION ?= 15m
SEED     ?= 0
faults:
	go test -v -count 1 -timeout 0 -run '^TestFaults$$' ./server/faults -duration $(DURATION) -seed $(SEED)

## faults-short: everything that can break does, once; under two minutes on two cores
faults-short:
	go test -count 1 -run '^TestEveryFault$$' ./server/faults -every -seed $(SEED)

## faults-cluster: three NATS servers and three gateways as processes: each is killed and frozen under load, then all of NATS is away for
## OUTAGE; prints who was refused, waited, lost, repeated or reordered. Two minutes
OUTAGE ?= 10s
faults-cluster:
	go test -v -count 1 -timeout 0 ./server/faults/cluster -cluster -outage $(OUTAGE)

## demo-cluster: the same, to look at
demo-cluster: faults-cluster

## groups: 100,000 notifications shared by three members that are killed at random; some minutes. SEED as above
groups:
	go test -v -count 1 -timeout 0 ./server/faults/groups -seed $(SEED) \
	  -notifications 100000 -sims 1000 -kills 60 -tolerance 0.1 -longest 30m

## corruption: flips every byte of every file of small logs and tables, one at a time, and cuts each file at every byte; ten minutes
corruption:
	go test -count 1 -timeout 0 -run 'Flipped|LostItsEnd' ./server/store/disk -every-byte

## clients: each client through the conformance suite; LANGUAGES names some of go, python, typescript, java, rust, or all
LANGUAGES ?= all
clients:
	go test -count 1 -timeout 15m ./clients/conformance -languages $(LANGUAGES)

## lint: Go, protos, formatting, module file
lint:
	$(BUF) lint
	$(BUF) format --diff --exit-code
	$(LINT) run
	go mod tidy -diff

generate:
	find gen -type f ! -path gen/openapi/openapi.go -delete
	$(BUF) generate

## check-generated: the committed generated code is what the protos give
check-generated: generate
	git diff --exit-code -- gen
	test -z "$$(git status --porcelain -- gen)"

## breaking: the protos are compatible with those of a commit; AGAINST names it
AGAINST ?= HEAD~1
breaking:
	$(BUF) breaking --against '.git#ref=$(AGAINST)'

## bench: durable notifications per second and latencies, with the machine's fsync, beside a store that does nothing
bench:
	go test -run '^$$' -bench . -benchtime 3s -count 3 ./server

## bench-start: how long the gateway takes to start on a log of 10 GiB, after a stop and after kill -9; needs 25 GiB of disk
bench-start:
	go test -run '^$$' -bench BenchmarkStart -benchtime 3x -timeout 30m ./server/faults

## bench-restart: ten restarts under 500 notifications a second, with sockets handed over: who is refused, and the longest wait
bench-restart:
	go test -run '^$$' -bench BenchmarkRestart -benchtime 1x ./server/faults

## bench-clients: how fast each client replays, beside its generated code alone
bench-clients:
	go test -run "^$$" -bench BenchmarkReplay -benchtime 1x -timeout 20m ./clients/conformance -languages $(LANGUAGES)

## fuzz: every fuzz target for FUZZTIME each
FUZZTIME ?= 30s
fuzz:
	@for package in $$(go list ./server/...); do \
	  for target in $$(go test -list '^Fuzz' $$package | grep '^Fuzz'); do \
	    echo "$$package $$target"; \
	    go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$package || exit 1; \
	  done; \
	done

## licenses: the licence of each module that the binary contains, with its text, in build/licenses
licenses:
	go run github.com/google/go-licenses@v1.6.0 save ./cmd/linksgate --save_path build/licenses --force

clean:
	rm -rf bin
