// A client of the OpenTelemetry SDK for Go: it sends traces in which every field that the SDK can fill is filled, and
// writes what it sent, as TracesData, for a test that compares it with what arrived.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"
)

// The exporters' own times are for a server that is far away and for long outages.
const (
	timeout      = 30 * time.Second
	firstBackOff = 200 * time.Millisecond
	lastBackOff  = time.Second
)

type options struct {
	endpoint, protocol, ca, sent string
	gzip                         bool
	headers                      headers
	traces                       int
}

type headers map[string]string

func (h headers) String() string { return fmt.Sprint(map[string]string(h)) }

func (h headers) Set(text string) error {
	name, value, found := strings.Cut(text, "=")
	if !found {
		return errors.New("a header is NAME=VALUE")
	}
	h[name] = value
	return nil
}

func main() {
	o := options{headers: headers{}}
	flag.StringVar(&o.endpoint, "endpoint", "127.0.0.1:4317", "`HOST:PORT` of the receiver")
	flag.StringVar(&o.protocol, "protocol", "grpc", "grpc, http/protobuf or http/json")
	flag.StringVar(&o.ca, "ca", "", "`FILE` with the authority of the receiver's certificate; without it there is no TLS")
	flag.StringVar(&o.sent, "sent", "", "`FILE` to write what was sent to")
	flag.BoolVar(&o.gzip, "gzip", false, "compress requests")
	flag.Var(o.headers, "header", "`NAME=VALUE` to send with each request; may be repeated")
	flag.IntVar(&o.traces, "traces", 1, "`NUMBER` of traces, each a request of its own")
	flag.Parse()
	// The SDK reports spans that an exporter gave up here, and nowhere else.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Fatal(err) }))
	if err := send(context.Background(), o); err != nil {
		log.Fatal(err)
	}
}

func send(ctx context.Context, o options) error {
	client, err := newClient(o)
	if err != nil {
		return err
	}
	recorder := &recorder{Client: client}
	exporter, err := otlptrace.New(ctx, recorder)
	if err != nil {
		return err
	}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter, sdktrace.WithExportTimeout(2*timeout)),
		sdktrace.WithResource(shop()),
		sdktrace.WithRawSpanLimits(limits),
	)
	for number := range o.traces {
		makeTrace(ctx, provider, number)
		if err := provider.ForceFlush(ctx); err != nil {
			return err
		}
	}
	if err := provider.Shutdown(ctx); err != nil {
		return err
	}
	return os.WriteFile(o.sent, recorder.sent, 0o600)
}

// recorder keeps what the SDK gives its client to send, once however often the client sends it.
type recorder struct {
	otlptrace.Client
	sent []byte
}

func (r *recorder) UploadTraces(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	var err error
	// Messages put one after the other are one message with all their spans.
	r.sent, err = proto.MarshalOptions{}.MarshalAppend(r.sent, &tracepb.TracesData{ResourceSpans: spans})
	if err != nil {
		return err
	}
	return r.Client.UploadTraces(ctx, spans)
}

func newClient(o options) (otlptrace.Client, error) {
	var secure *tls.Config
	if o.ca != "" {
		pem, err := os.ReadFile(o.ca)
		if err != nil {
			return nil, err
		}
		secure = &tls.Config{RootCAs: x509.NewCertPool()}
		if !secure.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("no certificate in %s", o.ca)
		}
	}
	switch o.protocol {
	case "grpc":
		return overGRPC(o, secure), nil
	case "http/protobuf":
		return overHTTP(o, secure, otlptracehttp.EncodingProtobuf), nil
	case "http/json":
		return overHTTP(o, secure, otlptracehttp.EncodingJSON), nil
	}
	return nil, fmt.Errorf("not a protocol: %s", o.protocol)
}

func overGRPC(o options, secure *tls.Config) otlptrace.Client {
	with := []otlptracegrpc.Option{
		otlptracegrpc.WithEndpoint(o.endpoint),
		otlptracegrpc.WithHeaders(o.headers),
		otlptracegrpc.WithTimeout(timeout),
		otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{
			Enabled: true, InitialInterval: firstBackOff, MaxInterval: lastBackOff, MaxElapsedTime: timeout,
		}),
	}
	if o.gzip {
		with = append(with, otlptracegrpc.WithCompressor("gzip"))
	}
	if secure == nil {
		return otlptracegrpc.NewClient(append(with, otlptracegrpc.WithInsecure())...)
	}
	return otlptracegrpc.NewClient(append(with, otlptracegrpc.WithTLSCredentials(credentials.NewTLS(secure)))...)
}

func overHTTP(o options, secure *tls.Config, encoding otlptracehttp.Encoding) otlptrace.Client {
	with := []otlptracehttp.Option{
		otlptracehttp.WithEndpoint(o.endpoint),
		otlptracehttp.WithEncoding(encoding),
		otlptracehttp.WithHeaders(o.headers),
		otlptracehttp.WithTimeout(timeout),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{
			Enabled: true, InitialInterval: firstBackOff, MaxInterval: lastBackOff, MaxElapsedTime: timeout,
		}),
	}
	if o.gzip {
		with = append(with, otlptracehttp.WithCompression(otlptracehttp.GzipCompression))
	}
	if secure == nil {
		return otlptracehttp.NewClient(append(with, otlptracehttp.WithInsecure())...)
	}
	return otlptracehttp.NewClient(append(with, otlptracehttp.WithTLSClientConfig(secure))...)
}
