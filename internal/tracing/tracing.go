// Package tracing makes the OpenTelemetry spans of what the gateway calls: the provider and the
// session store.
//
// A span is made only under the span of a request, which Caddy's directive `tracing` puts into
// the context, and goes to where that one goes. Without it nothing is made or allocated. Names
// and attributes are those of OpenTelemetry's semantic conventions. None is made from a request,
// a response, an error or a user, so none can have a secret. Begin with Provider.Start.
package tracing

import (
	"context"
	"net/url"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// scope is the name of the instrumentation.
const scope = "github.com/caddy-tollgate/tollgate"

// ErrorTimeout, ErrorCanceled and ErrorOther are values of the attribute error.type.
const (
	ErrorTimeout  = "timeout"
	ErrorCanceled = "canceled"
	ErrorOther    = "_OTHER"
)

// Span is a call that is under way. The zero value is a call without a span.
type Span struct{ span trace.Span }

// Provider holds what the spans of requests to the provider say about its endpoints.
type Provider struct {
	endpoints map[string][]attribute.KeyValue
}

// NewProvider returns the Provider for endpoints with these URLs, by their names.
func NewProvider(endpoints map[string]string) *Provider {
	p := &Provider{endpoints: make(map[string][]attribute.KeyValue, len(endpoints))}
	for name, address := range endpoints {
		p.endpoints[name] = attributesOf(address)
	}
	return p
}

// attributesOf describes the server and the URL of an endpoint. User, password, query and
// fragment are left out: an operator may have put a secret there.
func attributesOf(address string) []attribute.KeyValue {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return nil
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		port = map[string]int{"https": 443, "http": 80}[u.Scheme]
	}
	plain := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}
	return []attribute.KeyValue{semconv.ServerAddress(u.Hostname()), semconv.ServerPort(port), semconv.URLFull(plain.String())}
}

// Start begins the span of a request to an endpoint of the provider. The returned context is
// for the request.
func (p *Provider) Start(ctx context.Context, endpoint, method string) (context.Context, Span) {
	parent, traced := spanOf(ctx)
	if !traced {
		return ctx, Span{}
	}
	attributes := append([]attribute.KeyValue{semconv.HTTPRequestMethodKey.String(method)}, p.endpoints[endpoint]...)
	return start(ctx, parent, method+" "+endpoint, attributes)
}

// EndRequest ends the span of a request to the provider. Status is that of the response, or 0
// if there is none. failure is empty for a status that is no error.
func (s Span) EndRequest(status int, failure string) {
	if s.span == nil {
		return
	}
	if status != 0 {
		s.span.SetAttributes(semconv.HTTPResponseStatusCode(status))
	}
	s.End(failure)
}

// redis is the name of the store whose database has a name in the semantic conventions.
const redis = "redis"

// StartStore begins the span of an operation of a session store.
func StartStore(ctx context.Context, store, operation string) (context.Context, Span) {
	parent, traced := spanOf(ctx)
	if !traced {
		return ctx, Span{}
	}
	attributes := []attribute.KeyValue{semconv.DBOperationName(operation)}
	if store == redis {
		attributes = append(attributes, semconv.DBSystemNameRedis)
	}
	return start(ctx, parent, operation+" "+store, attributes)
}

// End ends the span. failure is the error.type, or empty without an error. The text of an error
// is left out: it may quote what a server has sent.
func (s Span) End(failure string) {
	if s.span == nil {
		return
	}
	if failure != "" {
		s.span.SetAttributes(semconv.ErrorTypeKey.String(failure))
		s.span.SetStatus(codes.Error, "")
	}
	s.span.End()
}

// spanOf returns the span of the request that ctx comes from. traced is false if there is none,
// or if it is not sampled. It may have ended: a call that outlives its request is still a child
// of it.
func spanOf(ctx context.Context) (parent trace.Span, traced bool) {
	parent = trace.SpanFromContext(ctx)
	return parent, parent.IsRecording() || parent.SpanContext().IsSampled()
}

// start begins a span under parent, with the tracer provider of parent and not the global one:
// Caddy does not set that.
func start(ctx context.Context, parent trace.Span, name string, attributes []attribute.KeyValue) (context.Context, Span) {
	tracer := parent.TracerProvider().Tracer(scope, trace.WithSchemaURL(semconv.SchemaURL))
	ctx, span := tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attributes...))
	return ctx, Span{span}
}
