package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/status"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/iccid"
	"github.com/linksgate/linksgate/server/jsondoc"
	"github.com/linksgate/linksgate/server/payload"
)

const observeLong = `Observe reads the log and tells what Linksfield really sends: for each account and kind
which members the bodies have, how often, of what shape, with an example in which letters
and digits are masked. What is documented is marked.

Where a member has the shape of an ICCID, an IMSI or a time and nobody has documented it,
it prints the lines of the configuration that would teach the gateway so. Look at them
before you use them: a shape is a guess.`

// Bounds of what is observed, so that no body can use up memory.
const (
	maxObservedPaths = 2000 // in all
	observeExample   = 40   // characters
	observeDepth     = 8
)

// memberShape is what values look like.
type memberShape string

const (
	shapeICCID  memberShape = "iccid"
	shapeIMSI   memberShape = "imsi"
	shapeTime   memberShape = "time"
	shapeDigits memberShape = "digits"
	shapeNumber memberShape = "number"
	shapeText   memberShape = "text"
	shapeEmpty  memberShape = "empty"
	shapeBool   memberShape = "bool"
	shapeNull   memberShape = "null"
	shapeLost   memberShape = "damaged iccid"
)

// observedMember is one member of the bodies of a kind.
type observedMember struct {
	Path       string              `json:"path"`
	Count      int                 `json:"count"` // bodies that have it
	Shapes     map[memberShape]int `json:"shapes"`
	Example    string              `json:"example"`
	Documented bool                `json:"documented"`
	// Suggested is the field that the member may be: iccid, imsi, occurred_at or empty.
	Suggested string `json:"suggested,omitempty"`

	last int // the body in which it was counted last
}

// observedKind is what was seen of one account and kind.
type observedKind struct {
	Account  string            `json:"account"`
	Kind     string            `json:"kind"`
	Bodies   int               `json:"bodies"`
	NotJSON  int               `json:"not_json"`
	NoICCID  int               `json:"no_iccid"` // of which no SIM is known
	Readings map[string]int    `json:"readings"`
	Members  []*observedMember `json:"members"`

	byPath map[string]*observedMember
}

// observer observes notifications.
type observer struct {
	kinds   map[string]*observedKind
	paths   int
	dropped bool // there were more members than are remembered
}

// observeFlags are the flags of observe as given.
type observeFlags struct {
	filterFlags
	startFlags
	asJSON bool
	connection
}

func newObserveCommand() *cobra.Command {
	var f observeFlags
	cmd := &cobra.Command{
		Use: "observe", Short: "Tell what Linksfield really sends, and what to configure for it", Long: observeLong, Args: cobra.NoArgs, RunE: f.run,
		Example: `  linksgate observe --since 24h
  linksgate observe --from-start --account acme --kind cube --json`,
	}
	flags := cmd.Flags()
	f.filterFlags.register(flags)
	f.startFlags.register(flags)
	flags.BoolVar(&f.asJSON, "json", false, "print one line of JSON for each account and kind")
	f.connection.register(flags)
	return cmd
}

func (f *observeFlags) run(cmd *cobra.Command, _ []string) error {
	if err := f.check(cmd.Flags()); err != nil {
		return err
	}
	start, err := f.start(time.Now())
	if err != nil {
		return err
	}
	if start == nil {
		start = &linksgatev1.Start{Position: &linksgatev1.Start_Earliest{Earliest: true}}
	}
	filter, err := f.filter()
	if err != nil {
		return err
	}
	conn, err := f.dial()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	stream, err := linksgatev1.NewNotificationServiceClient(conn).Subscribe(cmd.Context(), &linksgatev1.SubscribeRequest{
		Start: start, Filter: filter, MaxBatch: greatestBatch, ClientName: "linksgate observe", OnGap: linksgatev1.GapPolicy_GAP_POLICY_CONTINUE,
		Until: &linksgatev1.SubscribeRequest_UntilHead{UntilHead: true},
	})
	o := observer{kinds: make(map[string]*observedKind)}
	progress, seen := newTicker(cmd.ErrOrStderr()), 0
	for err == nil {
		var frame *linksgatev1.SubscribeResponse
		if frame, err = stream.Recv(); err != nil {
			break
		}
		for _, n := range frame.GetBatch().GetNotifications() {
			o.observe(n)
			seen++
		}
		progress.tell("%d so far", seen)
	}
	if !errors.Is(err, io.EOF) {
		st := status.Convert(err)
		if err := f.examineFailure(st, f.address); err != nil {
			return fmt.Errorf("observe: %w", err)
		}
		return fmt.Errorf("observe: %s: %s\n  %s", st.Code(), escaped(st.Message()), groupAdvice(st.Code(), "", f.address))
	}
	return o.print(cmd, f.asJSON)
}

// observe counts a notification.
func (o *observer) observe(n *linksgatev1.Notification) {
	name := payload.KindName(n.GetKind())
	key := n.GetAccount() + "/" + name
	kind := o.kinds[key]
	if kind == nil {
		kind = &observedKind{Account: n.GetAccount(), Kind: name, Readings: make(map[string]int), byPath: make(map[string]*observedMember)}
		o.kinds[key] = kind
	}
	kind.Bodies++
	if reading := n.GetVerification().GetReading(); reading != "" {
		kind.Readings[reading]++
	}
	if len(n.GetIccids()) == 0 {
		kind.NoICCID++
	}
	doc, err := jsondoc.Parse([]byte(n.GetBody()))
	if err != nil {
		kind.NotJSON++
		return
	}
	o.walk(kind, "", doc.Root, 0)
}

// walk counts the members of a value.
func (o *observer) walk(kind *observedKind, path string, v jsondoc.Value, depth int) {
	if depth > observeDepth {
		return
	}
	for i := range v.Elements {
		o.walk(kind, path, v.Elements[i], depth+1)
	}
	for i := range v.Members {
		o.walk(kind, strings.TrimPrefix(path+"."+v.Members[i].Key, "."), v.Members[i].Value, depth+1)
	}
	if path == "" || v.Kind == jsondoc.Object || v.Kind == jsondoc.Array {
		return
	}
	member := kind.byPath[path]
	if member == nil {
		if o.paths++; o.paths > maxObservedPaths {
			o.dropped = true
			return
		}
		member = &observedMember{Path: path, Shapes: make(map[memberShape]int), Documented: payload.IsDocumented(kind.Kind, path)}
		kind.byPath[path] = member
		kind.Members = append(kind.Members, member)
	}
	if member.last != kind.Bodies {
		member.Count, member.last = member.Count+1, kind.Bodies
	}
	member.Shapes[shapeOf(v)]++
	if member.Example == "" {
		member.Example = maskedText(v.Text)
	}
}

func shapeOf(v jsondoc.Value) memberShape {
	switch v.Kind {
	case jsondoc.Null:
		return shapeNull
	case jsondoc.Bool:
		return shapeBool
	}
	normal := iccid.Normal(v.Text)
	isDigits := v.Text != "" && strings.Trim(v.Text, "0123456789") == ""
	switch {
	case v.Text == "":
		return shapeEmpty
	case iccid.IsShaped(normal):
		return shapeICCID
	case iccid.IsDamaged(v.Text):
		return shapeLost
	case isDigits && len(v.Text) == 15:
		return shapeIMSI
	case payload.IsTime(v.Text):
		return shapeTime
	case isDigits:
		return shapeDigits
	case v.Kind == jsondoc.Number:
		return shapeNumber
	}
	return shapeText
}

// maskedText is a text with its letters and digits replaced: bodies are personal data.
func maskedText(text string) string {
	var b strings.Builder
	for i, r := range []rune(text) {
		switch {
		case i == observeExample:
			return b.String() + "…"
		case r >= '0' && r <= '9':
			r = '9'
		case r >= 'a' && r <= 'z':
			r = 'x'
		case r >= 'A' && r <= 'Z':
			r = 'X'
		case r > '~':
			r = '字'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// suggest names the field that a member may be: if all its values that are not empty have the shape of it.
func (m *observedMember) suggest() {
	total := 0
	for shape, count := range m.Shapes {
		if shape != shapeEmpty && shape != shapeNull {
			total += count
		}
	}
	if m.Documented || total == 0 {
		return
	}
	for shape, field := range map[memberShape]string{shapeICCID: "iccid", shapeIMSI: "imsi", shapeTime: "occurred_at"} {
		if m.Shapes[shape] == total {
			m.Suggested = field
		}
	}
	if lower := strings.ToLower(m.Path[strings.LastIndexByte(m.Path, '.')+1:]); strings.Contains(lower, "partner") && m.Shapes[shapeText]+m.Shapes[shapeDigits] == total {
		m.Suggested = "partner_code"
	}
}

func (o *observer) print(cmd *cobra.Command, asJSON bool) error {
	out := cmd.OutOrStdout()
	keys := make([]string, 0, len(o.kinds))
	for key := range o.kinds {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	if len(keys) == 0 {
		tellNone(cmd, "no notification was found")
	}
	if o.dropped {
		fmt.Fprintf(cmd.ErrOrStderr(), "linksgate: there are more members than the %d that are shown\n", maxObservedPaths)
	}
	for _, key := range keys {
		kind := o.kinds[key]
		slices.SortFunc(kind.Members, func(a, b *observedMember) int { return strings.Compare(a.Path, b.Path) })
		for _, member := range kind.Members {
			member.suggest()
		}
		var err error
		if asJSON {
			err = printJSON(out, kind)
		} else {
			err = kind.print(out)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (k *observedKind) print(out io.Writer) error {
	if _, err := fmt.Fprintf(out, "%s %s: %s; no SIM known of %d, no JSON %d\n", visible(k.Account), k.Kind,
		plural(int64(k.Bodies), "notification"), k.NoICCID, k.NotJSON); err != nil {
		return err
	}
	for _, m := range k.Members {
		shapes := make([]string, 0, len(m.Shapes))
		for shape, count := range m.Shapes {
			shapes = append(shapes, fmt.Sprintf("%s %d", shape, count))
		}
		slices.Sort(shapes)
		note := ""
		switch {
		case m.Documented:
			note = "  (documented)"
		case m.Suggested != "":
			note = "  (" + m.Suggested + "?)"
		}
		if _, err := fmt.Fprintf(out, "  %-28s in %d: %s: %s%s\n", escaped(m.Path), m.Count, strings.Join(shapes, ", "), escaped(m.Example), note); err != nil {
			return err
		}
	}
	return k.printSuggestion(out)
}

// printSuggestion prints what to configure.
func (k *observedKind) printSuggestion(out io.Writer) error {
	byField := make(map[string][]string)
	for _, m := range k.Members {
		if m.Suggested != "" {
			byField[m.Suggested] = append(byField[m.Suggested], fmt.Sprintf("%q", m.Path))
		}
	}
	if len(byField) == 0 {
		return nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "  # suggested, to be looked at:\n  accounts: {%s: {kinds: {%s: {fields: {", k.Account, k.Kind)
	first := true
	for _, field := range []string{"iccid", "imsi", "partner_code", "occurred_at"} {
		if len(byField[field]) == 0 {
			continue
		}
		if !first {
			b.WriteString(", ")
		}
		first = false
		fmt.Fprintf(&b, "%s: [%s]", field, strings.Join(byField[field], ", "))
	}
	b.WriteString("}}}}}\n")
	_, err := io.WriteString(out, b.String())
	return err
}
