// Package openapi holds the description of the REST API that is generated from the protos.
package openapi

import _ "embed" // of the document

// Document is the OpenAPI 2.0 document, JSON.
//
//go:embed linksgate.swagger.json
var Document []byte
