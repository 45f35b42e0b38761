package seriatim

import (
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/seriatim-log/seriatim/clients/go/seriatimv1"
)

// refreshInterval is how often the members are asked for.
const refreshInterval = 5 * time.Minute

const reasonClusterChanged = "CLUSTER_CHANGED"

// members are the known nodes of a cluster, and the connections to them.
type members struct {
	options []grpc.DialOption

	mu sync.Mutex
	// The addresses that were given, then the members that a node has named.
	nodes []*node
	given int
	// The node that answered last. New calls begin there.
	current   *node
	clusterID string
	closed    bool
	// Starts the goroutine that refreshes the members.
	started sync.Once
	// Asks for a refresh.
	refresh chan struct{}
}

type node struct {
	addr string
	// Guarded by members.mu.
	conn *conn
	// Whether a node of this cluster has answered on conn.
	checked bool
}

// conn is a connection to a node. It breaks once: then the node gets another one, so that a new attempt does not wait for the
// backoff of gRPC, and fails only if the node really can't be reached.
type conn struct {
	*grpc.ClientConn
	node *node
	// Guarded by members.mu. The connection is closed when it is broken and not used.
	users  int
	broken bool
}

func newMembers(addrs []string, options []grpc.DialOption) *members {
	m := &members{options: options, refresh: make(chan struct{}, 1)}
	for _, addr := range addrs {
		if !slices.ContainsFunc(m.nodes, func(n *node) bool { return n.addr == addr }) {
			m.nodes = append(m.nodes, &node{addr: addr})
		}
	}
	m.given = len(m.nodes)
	m.current = m.nodes[0]
	return m
}

func (m *members) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	for _, n := range m.nodes {
		if n.conn != nil {
			m.discard(n.conn)
		}
	}
}

// acquire returns the connection to a node, for as long as it is not released. The client connects when it is used.
func (m *members) acquire(n *node) (*conn, *Error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, closedError("the client")
	}
	if n.conn == nil {
		// The dialer of the system looks the name up, each time anew.
		grpcConn, err := grpc.NewClient("passthrough:///"+n.addr, m.options...)
		if err != nil {
			return nil, invalid("address %q: %v", n.addr, err)
		}
		n.conn, n.checked = &conn{ClientConn: grpcConn, node: n}, false
	}
	n.conn.users++
	return n.conn, nil
}

func (m *members) release(cn *conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	cn.users--
	if cn.broken && cn.users == 0 {
		cn.Close()
	}
}

// lost replaces a connection that broke. Calls that still use it end by themselves.
func (m *members) lost(cn *conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !cn.broken {
		m.discard(cn)
	}
	select {
	case m.refresh <- struct{}{}:
	default:
	}
}

func (m *members) discard(cn *conn) {
	cn.broken = true
	if cn.node.conn == cn {
		cn.node.conn, cn.node.checked = nil, false
	}
	if cn.users == 0 || m.closed {
		cn.Close()
	}
}

func (m *members) isChecked(cn *conn) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return cn.node.checked && cn.node.conn == cn
}

// learn takes the members from an answer of GetServers. It returns the address of the leader, or "".
func (m *members) learn(cn *conn, answer *seriatimv1.GetServersResponse) (leader string, changed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.clusterID == "" {
		m.clusterID = answer.ClusterId
	}
	if m.clusterID != answer.ClusterId {
		return "", true
	}
	if cn.node.conn == cn {
		cn.node.checked = true
	}
	if len(answer.Servers) == 0 {
		return "", false
	}
	nodes := slices.Clone(m.nodes[:m.given])
	for _, server := range answer.Servers {
		if server.IsLeader {
			leader = server.RpcAddr
		}
		if server.RpcAddr != "" && !slices.ContainsFunc(nodes, func(n *node) bool { return n.addr == server.RpcAddr }) {
			nodes = append(nodes, m.find(server.RpcAddr))
		}
	}
	for _, old := range m.nodes[m.given:] {
		if old.conn != nil && !slices.Contains(nodes, old) {
			// It is no member any more. Streams that it still serves continue.
			m.discard(old.conn)
		}
	}
	m.nodes = nodes
	return leader, false
}

// find returns the node with an address. The caller holds mu.
func (m *members) find(addr string) *node {
	for _, n := range m.nodes {
		if n.addr == addr {
			return n
		}
	}
	return &node{addr: addr}
}

// at returns the node with an address, which may be one that no member has named yet.
func (m *members) at(addr string) *node {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.find(addr)
	if !slices.Contains(m.nodes, n) {
		m.nodes = append(m.nodes, n)
	}
	return n
}

// first returns where a new call begins.
func (m *members) first() *node {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.current
}

func (m *members) answeredBy(n *node) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.current = n
}

// after returns the next node after n that is not in tried, or nil.
func (m *members) after(n *node, tried map[*node]bool) *node {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := slices.Index(m.nodes, n)
	for i := range m.nodes {
		if next := m.nodes[(at+1+i)%len(m.nodes)]; !tried[next] {
			return next
		}
	}
	return nil
}

// all returns the addresses of the known nodes.
func (m *members) all() []*node {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.nodes)
}
