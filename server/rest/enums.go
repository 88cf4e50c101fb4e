package rest

import (
	"bytes"
	"encoding/json"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/linksgate/linksgate/server/rpc"
)

// checkEnums refuses numbers where a body has the value of an enum. They are not in the description of the API, and what number a value has
// is nobody's business: 0 would pass for not set. Bodies that are no such message are refused elsewhere.
func checkEnums(body []byte, message protoreflect.MessageDescriptor, prefix string) error {
	var members map[string]json.RawMessage
	if json.Unmarshal(body, &members) != nil {
		return nil
	}
	for name, value := range members {
		field := message.Fields().ByJSONName(name)
		if field == nil {
			field = message.Fields().ByName(protoreflect.Name(name))
		}
		if field == nil || field.IsMap() {
			continue
		}
		for _, one := range elementsOf(value, field.IsList()) {
			switch {
			case field.Enum() != nil && len(one) > 0 && one[0] != '"' && !bytes.Equal(one, []byte("null")):
				return rpc.InvalidField(prefix+name, "must be the name of a value, in quotes")
			case field.Message() != nil:
				if err := checkEnums(one, field.Message(), prefix+name+"."); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// elementsOf returns the elements of a list, or a value that is none.
func elementsOf(value json.RawMessage, isList bool) []json.RawMessage {
	var elements []json.RawMessage
	if isList && json.Unmarshal(value, &elements) == nil {
		return elements
	}
	return []json.RawMessage{value}
}
