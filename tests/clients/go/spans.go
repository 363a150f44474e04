package main

import (
	"context"
	"fmt"
	"math"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// What is above these the SDK leaves out, and counts what it left out.
var limits = sdktrace.SpanLimits{
	AttributeValueLengthLimit:   60,
	AttributeCountLimit:         len(everyType),
	EventCountLimit:             2,
	LinkCountLimit:              2,
	AttributePerEventCountLimit: 1,
	AttributePerLinkCountLimit:  1,
}

// One attribute of each type, and what is at the edges of some.
var everyType = []attribute.KeyValue{
	attribute.String("text", "ä€𝄞 and more than the limit lets through, which the SDK cuts before it sends"),
	attribute.String("empty text", ""),
	attribute.Bool("true", true),
	attribute.Bool("false", false),
	attribute.Int64("least", math.MinInt64),
	attribute.Int64("most", math.MaxInt64),
	attribute.Int("zero", 0),
	attribute.Float64("float", -1.5e-300),
	attribute.Float64("infinite", math.Inf(1)),
	attribute.StringSlice("texts", []string{"one", "", "three"}),
	attribute.BoolSlice("bools", []bool{true, false}),
	attribute.Int64Slice("ints", []int64{-1, 0, 1 << 40}),
	attribute.Float64Slice("floats", []float64{0, 0.1}),
	attribute.StringSlice("no texts", nil),
	attribute.ByteSlice("bytes", []byte{0, 255, '\n'}),
	attribute.Slice("mixed", attribute.IntValue(1), attribute.StringValue("two")),
	attribute.Map("map", attribute.Bool("inner", true), attribute.Map("deeper", attribute.Int("innermost", 7))),
}

func shop() *resource.Resource {
	own := []attribute.KeyValue{
		attribute.String("service.name", "shop"),
		attribute.StringSlice("process.command_args", []string{"shop", "-v"}),
		attribute.Int("process.pid", 4711),
	}
	return resource.NewWithAttributes("https://opentelemetry.io/schemas/1.37.0", own...)
}

// makeTrace makes a span with everything, below a remote parent, and one below it for each kind.
func makeTrace(ctx context.Context, provider trace.TracerProvider, number int) {
	tracer := provider.Tracer("spanmill.test/go",
		trace.WithInstrumentationVersion("1.2.3"),
		trace.WithSchemaURL("https://opentelemetry.io/schemas/1.36.0"),
		trace.WithInstrumentationAttributes(attribute.String("scope", "its own"), attribute.Int("number", 1)),
	)
	ctx, root := tracer.Start(trace.ContextWithRemoteSpanContext(ctx, remote(number, 1)), "everything",
		trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(everyType...),
		trace.WithLinks(link(number, 2), link(number, 3), link(number, 4)),
	)
	root.SetAttributes(attribute.Bool("above the limit", true))
	for event := range 3 {
		root.AddEvent(fmt.Sprint("event ", event), trace.WithAttributes(twoAttributes()...))
	}
	root.SetStatus(codes.Error, "it didn't work")
	plain := provider.Tracer("without a version")
	for kind := trace.SpanKindInternal; kind <= trace.SpanKindConsumer; kind++ {
		_, child := plain.Start(ctx, fmt.Sprintf("%d: %s", number, kind), trace.WithSpanKind(kind))
		if kind == trace.SpanKindClient {
			child.SetStatus(codes.Ok, "")
		}
		child.End()
	}
	root.End()
	_, alone := plain.Start(context.Background(), "a trace of one")
	alone.End()
}

func link(number, span int) trace.Link {
	return trace.Link{SpanContext: remote(number, span), Attributes: twoAttributes()}
}

func twoAttributes() []attribute.KeyValue {
	return []attribute.KeyValue{attribute.Int("kept", 1), attribute.Int("left out", 2)}
}

// remote gives the context of a span in another process.
func remote(number, span int) trace.SpanContext {
	state, err := trace.ParseTraceState("vendor=a:1,other=b")
	if err != nil {
		panic(err)
	}
	return trace.NewSpanContext(trace.SpanContextConfig{
		TraceID:    trace.TraceID{15: byte(number + 1)},
		SpanID:     trace.SpanID{7: byte(span)},
		TraceFlags: trace.FlagsSampled,
		TraceState: state,
		Remote:     true,
	})
}
