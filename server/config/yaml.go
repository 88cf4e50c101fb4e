package config

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// unmarshalText reads a value that is written as text. An error of parse gets the place of the value.
func unmarshalText(unmarshal func(any) error, parse func(string) error) error {
	var text string
	if err := unmarshal(&text); err != nil {
		return err
	}
	err := parse(text)
	if err == nil {
		return nil
	}
	var at place
	if err := unmarshal(&at); err != nil {
		return err
	}
	return &yaml.SyntaxError{Message: err.Error(), Token: at.token}
}

// place is where a value stands.
type place struct{ token *token.Token }

// UnmarshalYAML implements yaml.NodeUnmarshaler.
func (p *place) UnmarshalYAML(node ast.Node) error {
	p.token = node.GetToken()
	return nil
}

// locate says where in a configuration an error is, by line, column and key, and what it is.
func locate(text []byte, err error) string {
	var failed yaml.Error
	if !errors.As(err, &failed) || failed.GetToken() == nil {
		return ": " + err.Error()
	}
	at := failed.GetToken().Position
	where := fmt.Sprintf(":%d:%d: ", at.Line, at.Column)
	if key := keyAt(text, at); key != "" {
		where += key + ": "
	}
	return where + messageOf(failed)
}

// keyAt is the path of the key or value at a position, such as log.max_age; "" if there is none.
func keyAt(text []byte, at *token.Position) string {
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return ""
	}
	finder := &pathFinder{at: at}
	for _, document := range file.Docs {
		ast.Walk(finder, document)
	}
	return strings.TrimPrefix(strings.TrimPrefix(finder.path, "$"), ".")
}

// pathFinder keeps the path of the innermost node at a position.
type pathFinder struct {
	at   *token.Position
	path string
}

// Visit implements ast.Visitor.
func (f *pathFinder) Visit(node ast.Node) ast.Visitor {
	if t := node.GetToken(); t != nil && t.Position.Line == f.at.Line && t.Position.Column == f.at.Column && len(node.GetPath()) > len(f.path) {
		f.path = node.GetPath()
	}
	return f
}

// messageOf is the message of an error without its place. Where it would be in the terms of Go, it is in those of YAML.
func messageOf(failed yaml.Error) string {
	var wrongType *yaml.TypeError
	var wrongNode *yaml.UnexpectedNodeTypeError
	switch {
	case errors.As(failed, &wrongType):
		return fmt.Sprintf("%s is wanted, not %s", formOf(wrongType.DstType), formOf(wrongType.SrcType))
	case errors.As(failed, &wrongNode):
		return fmt.Sprintf("%s is wanted, not %s", formNamed(wrongNode.Expected.YAMLName()), formNamed(wrongNode.Actual.YAMLName()))
	}
	return failed.GetMessage()
}

func formOf(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64, reflect.Uint64:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	case reflect.String:
		return "text"
	case reflect.Slice:
		return formNamed("sequence")
	case reflect.Map, reflect.Struct:
		return formNamed("mapping")
	}
	return t.String()
}

// formNamed is what the YAML library names, in the words of a person.
func formNamed(name string) string {
	switch name {
	case "mapping":
		return "a group of keys"
	case "sequence":
		return "a list"
	case "string":
		return "text"
	case "int":
		return "a whole number"
	case "bool":
		return "true or false"
	case "null":
		return "nothing"
	}
	return "a " + name
}
