package jsondoc_test

import (
	"testing"

	"github.com/linksgate/linksgate/server/jsondoc"
)

func TestAppendCompact(t *testing.T) {
	tests := []struct {
		name, body                       string
		asReceived, sortedTop, sortedAll string // an empty one is as the one before it
	}{
		{
			name:       "orders",
			body:       ` { "b" : { "d" : 1 , "c" : [ { "z" : 0 , "y" : 0 } , 2 , 1 ] } , "a" : null } `,
			asReceived: `{"b":{"d":1,"c":[{"z":0,"y":0},2,1]},"a":null}`,
			sortedTop:  `{"a":null,"b":{"d":1,"c":[{"z":0,"y":0},2,1]}}`,
			sortedAll:  `{"a":null,"b":{"c":[{"y":0,"z":0},2,1],"d":1}}`,
		},
		{
			name:       "top level is an array",
			body:       `[{"b":1,"a":2}]`,
			asReceived: `[{"b":1,"a":2}]`,
			sortedAll:  `[{"a":2,"b":1}]`,
		},
		{
			name:       "keys by bytes",
			body:       `{"é":1,"a":2,"B":3,"":4,"aa":5,"a\u0000":6}`,
			asReceived: `{"é":1,"a":2,"B":3,"":4,"aa":5,"a\u0000":6}`,
			sortedTop:  `{"":4,"B":3,"a":2,"a\u0000":6,"aa":5,"é":1}`,
		},
		{
			name:       "literals as they came",
			body:       `[1.0,1e5,1E+5,-0,0.10,89860220190123456789,true,false,null]`,
			asReceived: `[1.0,1e5,1E+5,-0,0.10,89860220190123456789,true,false,null]`,
		},
		{
			name:       "escaped as Jackson does",
			body:       `"\"\\\u0008\u000c\u000a\u000d\u0009\u0000\u000b\u001f"`,
			asReceived: `"\"\\\b\f\n\r\t\u0000\u000B\u001F"`,
		},
		{
			name:       "left raw",
			body:       `"\/\u003c\u003e\u0026\u007f\u2028\u2029\u00e9\u53d1\ud83d\ude00\ufffd\u0020"`,
			asReceived: "\"/<>&\x7f\u2028\u2029é发😀\ufffd \"",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.sortedTop == "" {
				tt.sortedTop = tt.asReceived
			}
			if tt.sortedAll == "" {
				tt.sortedAll = tt.sortedTop
			}
			root := mustParse(t, tt.body).Root
			for order, want := range map[jsondoc.Order]string{
				jsondoc.AsReceived: tt.asReceived,
				jsondoc.SortedTop:  tt.sortedTop,
				jsondoc.SortedAll:  tt.sortedAll,
			} {
				if got := string(root.AppendCompact([]byte("x"), order)); got != "x"+want {
					t.Errorf("order %d:\n got %s\nwant x%s", order, got, want)
				}
			}
		})
	}
}

func TestZeroValueIsNull(t *testing.T) {
	if got := string(jsondoc.Value{}.AppendCompact(nil, jsondoc.AsReceived)); got != "null" {
		t.Errorf("zero Value = %s", got)
	}
}
