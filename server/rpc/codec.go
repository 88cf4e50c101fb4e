package rpc

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/linksgate/linksgate/server/eventlog"
	"github.com/linksgate/linksgate/server/group"
)

// Field numbers of SubscribeResponse, and of ConsumeResponse, Leases and Lease. A test compares them with the generated code.
const (
	fieldToken = 1
	fieldBatch = 3

	fieldLeases            = 2
	fieldLease             = 1
	fieldLeaseToken        = 1
	fieldLeaseAttempt      = 2
	fieldLeaseExpiresAt    = 3
	fieldLeaseNotification = 4
)

// codec sends encoded messages as the bytes that they are, and everything else as gRPC's own codec does.
type codec struct{ encoding.CodecV2 }

func newCodec() encoding.CodecV2 { return codec{encoding.GetCodecV2(proto.Name)} }

// Marshal implements [encoding.CodecV2].
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if frame, ok := v.(encoded); ok {
		return mem.BufferSlice(frame), nil
	}
	return c.CodecV2.Marshal(v)
}

// encoded is a message that is marshalled already.
type encoded mem.BufferSlice

// newBatchFrame returns a SubscribeResponse with a Batch: its own few bytes, then slices of the log's memory.
func newBatchFrame(token string, records []*eventlog.Record) encoded {
	const ownBytes = 64
	frame := make(encoded, 1, 2)
	size := 0
	var run []byte
	for _, record := range records {
		framed := record.Framed()
		size += len(framed)
		if joined, ok := eventlog.Join(run, framed); ok {
			run = joined
			continue
		}
		if run != nil {
			frame = append(frame, mem.SliceBuffer(run))
		}
		run = framed
	}
	frame = append(frame, mem.SliceBuffer(run))

	head := make([]byte, 0, ownBytes)
	head = protowire.AppendTag(head, fieldToken, protowire.BytesType)
	head = protowire.AppendString(head, token)
	head = protowire.AppendTag(head, fieldBatch, protowire.BytesType)
	head = protowire.AppendVarint(head, uint64(size))
	frame[0] = mem.SliceBuffer(head)
	return frame
}

// newLeasesFrame returns a ConsumeResponse with Leases.
func newLeasesFrame(leases []group.Lease) encoded {
	const ownBytes = 160 // a lease without its notification, generously
	size := 0
	for i := range leases {
		size += ownBytes + len(leases[i].Record.Message())
	}
	var own [ownBytes]byte
	body := make([]byte, 0, size)
	for i := range leases {
		l, message := &leases[i], leases[i].Record.Message()
		head := appendLease(own[:0], l)
		head = protowire.AppendTag(head, fieldLeaseNotification, protowire.BytesType)
		head = protowire.AppendVarint(head, uint64(len(message)))
		body = protowire.AppendTag(body, fieldLease, protowire.BytesType)
		body = protowire.AppendVarint(body, uint64(len(head)+len(message)))
		body = append(body, head...)
		body = append(body, message...)
	}
	frame := protowire.AppendTag(nil, fieldLeases, protowire.BytesType)
	frame = protowire.AppendVarint(frame, uint64(len(body)))
	return encoded{mem.SliceBuffer(frame), mem.SliceBuffer(body)}
}

// appendLease appends what a lease says beside its notification.
func appendLease(dst []byte, l *group.Lease) []byte {
	dst = protowire.AppendTag(dst, fieldLeaseToken, protowire.BytesType)
	dst = protowire.AppendString(dst, l.Token)
	dst = protowire.AppendTag(dst, fieldLeaseAttempt, protowire.VarintType)
	dst = protowire.AppendVarint(dst, uint64(l.Attempt))
	// A google.protobuf.Timestamp: seconds and nanoseconds.
	at := protowire.AppendTag(make([]byte, 0, 16), 1, protowire.VarintType)
	at = protowire.AppendVarint(at, uint64(l.Until.Unix()))
	at = protowire.AppendTag(at, 2, protowire.VarintType)
	at = protowire.AppendVarint(at, uint64(l.Until.Nanosecond()))
	dst = protowire.AppendTag(dst, fieldLeaseExpiresAt, protowire.BytesType)
	return protowire.AppendBytes(dst, at)
}
