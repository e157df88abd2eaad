//! The tools: each is a request of the other doors under the name that models know it by.

/// A tool and the request behind it.
#[derive(Debug)]
pub struct Tool {
    pub name: &'static str,
    pub title: &'static str,
    pub description: &'static str,
    /// The request it makes; its arguments are that request's parameters.
    pub method: &'static str,
    /// The fields of its input schema's `properties`, JSON.
    pub properties: &'static str,
    /// Names of required arguments, a JSON array.
    pub required: &'static str,
    /// What a client may assume about it, fields of JSON.
    pub hints: &'static str,
}

/// The tool of that name.
pub fn find(name: &str) -> Option<&'static Tool> {
    TOOLS.iter().find(|tool| tool.name == name)
}

const TASK_ID: &str =
    r#""id":{"type":"string","description":"The task's id, as task_create gave it."}"#;
const AGENT_ID: &str =
    r#""id":{"type":"string","description":"The agent's id, as agent_list shows it."}"#;
const READS: &str = r#""readOnlyHint":true"#;
const ADDS: &str = r#""readOnlyHint":false,"destructiveHint":false,"idempotentHint":false"#;
const ENDS: &str = r#""readOnlyHint":false,"destructiveHint":true,"idempotentHint":true"#;

/// All tools, in the order that `tools/list` shows them.
pub const TOOLS: [Tool; 17] = [
    Tool {
        name: "task_create",
        title: "Create a task",
        description: "Gives a task to the swarm and returns its id at once. An agent of the named \
            type runs it; failed attempts are repeated up to max_attempts. Read the outcome with \
            task_result. The error backpressure means that nothing was accepted: try again after \
            retry_after_ms.",
        method: "task.submit",
        properties: r#""type":{"type":"string","minLength":1,"description":"The agent type that runs the task, for example echo."},"payload":{"description":"What the agent gets: any JSON value."},"priority":{"type":"string","enum":["low","normal","high","critical"],"default":"normal","description":"How urgent the task is."},"timeout_ms":{"type":"integer","minimum":1,"description":"How long one attempt may take, milliseconds."},"max_attempts":{"type":"integer","minimum":1,"maximum":4294967295,"description":"Attempts before the task is given up as dead."},"key":{"type":"string","minLength":1,"maxLength":256,"description":"Makes the call idempotent: for 24 hours a second task_create with the same type, key and content returns the same id."},"delay_ms":{"type":"integer","minimum":0,"maximum":31536000000,"default":0,"description":"How long the task waits before it may run, milliseconds."},"durable":{"type":"boolean","default":true,"description":"Whether the task is kept on disk where the node has a log; with false it ends with the node, and a full queue may give it up."}"#,
        required: r#"["type","payload"]"#,
        hints: ADDS,
    },
    Tool {
        name: "task_status",
        title: "Status of a task",
        description: "Tells where a task is in its life (queued, delayed, running, done, dead \
            or cancelled), its attempts and its last error, without its result.",
        method: "task.status",
        properties: TASK_ID,
        required: r#"["id"]"#,
        hints: READS,
    },
    Tool {
        name: "task_result",
        title: "Result of a task",
        description: "Returns the result of a task that is done, or its error. With wait_ms it \
            first waits that long for the task to end; a task that has not ended by then is shown \
            as it is, and can be asked for again.",
        method: "task.result",
        properties: r#""id":{"type":"string","description":"The task's id, as task_create gave it."},"wait_ms":{"type":"integer","minimum":0,"default":0,"description":"How long to wait for the task to end, milliseconds."}"#,
        required: r#"["id"]"#,
        hints: READS,
    },
    Tool {
        name: "task_list",
        title: "List tasks",
        description: "Lists tasks that the node knows, without their results, a hundred at a \
            time: ended ones stay for a while. A cursor in the answer leads to the next part.",
        method: "task.list",
        properties: r#""status":{"type":"string","enum":["queued","delayed","running","done","dead","cancelled"],"description":"Only tasks that are there in their life."},"type":{"type":"string","minLength":1,"description":"Only tasks of this agent type."},"cursor":{"type":"string","minLength":1,"description":"Where to go on, as the last answer gave it."}"#,
        required: "[]",
        hints: READS,
    },
    Tool {
        name: "task_cancel",
        title: "Cancel a task",
        description: "Ends a task that has not ended yet. Returns cancelled: false when it had \
            ended before.",
        method: "task.cancel",
        properties: TASK_ID,
        required: r#"["id"]"#,
        hints: ENDS,
    },
    Tool {
        name: "agent_list",
        title: "List agents",
        description: "Lists the agents of this node with their type, state and load.",
        method: "agent.list",
        properties: r#""type":{"type":"string","minLength":1,"description":"Only agents of this type."}"#,
        required: "[]",
        hints: READS,
    },
    Tool {
        name: "agent_spawn",
        title: "Start an agent",
        description: "Starts one more agent of a configured type and returns its id. agent_list \
            shows which types exist.",
        method: "agent.spawn",
        properties: r#""type":{"type":"string","minLength":1,"description":"A configured agent type."},"name":{"type":"string","minLength":1,"description":"A name for the agent, not taken yet."}"#,
        required: r#"["type"]"#,
        hints: ADDS,
    },
    Tool {
        name: "agent_status",
        title: "Status of an agent",
        description: "Shows one agent: its type, name, state, load and how its tasks ended.",
        method: "agent.status",
        properties: AGENT_ID,
        required: r#"["id"]"#,
        hints: READS,
    },
    Tool {
        name: "agent_terminate",
        title: "Stop an agent",
        description: "Stops an agent. Tasks that it works on go to other agents.",
        method: "agent.stop",
        properties: AGENT_ID,
        required: r#"["id"]"#,
        hints: ENDS,
    },
    Tool {
        name: "memory_store",
        title: "Store in memory",
        description: "Remembers something for later searches and returns its key: give text, or a \
            vector from your own embedding model. An item with the same key and namespace is \
            replaced. Texts are compared by the node's embedder, which memory_stats names: \
            lexical finds texts that share words with a query, not texts that mean the same, \
            so use the words that one will search for. The error backpressure with retry_after_ms \
            means try again then; without it the memory is full until items are deleted.",
        method: "memory.put",
        properties: r#""text":{"type":"string","minLength":1,"maxLength":65536,"description":"What to remember. At most 65536 bytes of UTF-8. Give this or vector, not both."},"vector":{"type":"array","items":{"type":"number"},"minItems":2,"maxItems":4096,"description":"An embedding in place of text, with as many numbers as the dimension that memory_stats shows. Keep such items in a namespace of their own: their scores cannot be compared with those of texts."},"key":{"type":"string","minLength":1,"maxLength":256,"description":"The item's name, at most 256 bytes; one is made up when it is left out."},"namespace":{"type":"string","minLength":1,"maxLength":64,"default":"default","description":"Keeps items of different purposes apart."},"metadata":{"type":"object","maxProperties":1024,"description":"Anything to keep with the item, at most 65536 bytes; searches return it and can filter by its fields."}"#,
        required: "[]",
        hints: r#""readOnlyHint":false,"destructiveHint":true,"idempotentHint":false"#,
    },
    Tool {
        name: "memory_retrieve",
        title: "Retrieve from memory",
        description: "Returns one item by its key, with its text and metadata. To find items by \
            what they say use memory_search.",
        method: "memory.retrieve",
        properties: r#""key":{"type":"string","minLength":1,"maxLength":256,"description":"The item's name."},"namespace":{"type":"string","minLength":1,"maxLength":64,"default":"default","description":"Where the item is."},"vector":{"type":"boolean","default":false,"description":"Whether to show the item's vector too, which is hundreds of numbers."}"#,
        required: r#"["key"]"#,
        hints: READS,
    },
    Tool {
        name: "memory_search",
        title: "Search memory",
        description: "Returns the items nearest to a text or a vector, best first, each with its \
            score, which is 1 at most under the metric cosine. With the lexical embedder (see memory_stats) a text finds items that share words \
            with it, not items that mean the same: try other words before you conclude that \
            nothing is there.",
        method: "memory.search",
        properties: r#""text":{"type":"string","minLength":1,"maxLength":65536,"description":"What to look for. Give this or vector, not both."},"vector":{"type":"array","items":{"type":"number"},"minItems":2,"maxItems":4096,"description":"An embedding in place of text, from the model that made those in the namespace."},"k":{"type":"integer","minimum":1,"maximum":1000,"default":10,"description":"How many items to return at most."},"namespace":{"type":"string","minLength":1,"maxLength":64,"description":"Only items of this namespace; all when it is left out."},"filter":{"type":"object","maxProperties":64,"description":"Only items whose metadata have each of these fields with an equal value."},"ef":{"type":"integer","minimum":1,"maximum":4096,"description":"How widely to look: more finds more of the true nearest, and takes longer."}"#,
        required: "[]",
        hints: READS,
    },
    Tool {
        name: "memory_delete",
        title: "Delete from memory",
        description: "Forgets one item. Returns deleted: false when there was none.",
        method: "memory.delete",
        properties: r#""key":{"type":"string","minLength":1,"maxLength":256,"description":"The item's name."},"namespace":{"type":"string","minLength":1,"maxLength":64,"default":"default","description":"Where the item is."}"#,
        required: r#"["key"]"#,
        hints: ENDS,
    },
    Tool {
        name: "memory_list",
        title: "List memory",
        description: "Lists items, in no order that means anything, a part at a time. A cursor in \
            the answer leads to the next part.",
        method: "memory.list",
        properties: r#""namespace":{"type":"string","minLength":1,"maxLength":64,"description":"Only items of this namespace; all when it is left out."},"limit":{"type":"integer","minimum":1,"maximum":1000,"default":100,"description":"Items in this part at most."},"cursor":{"type":"string","minLength":1,"description":"Where to go on, as the last answer gave it."}"#,
        required: "[]",
        hints: READS,
    },
    Tool {
        name: "memory_stats",
        title: "Figures of memory",
        description: "Shows how many items there are in which namespaces, the dimension and metric of \
            their vectors, which embedder makes vectors of texts (lexical: by shared words; exec: by \
            a program, such as a sentence model; none: only vectors are stored), whether items \
            outlive the node, and damage that was met.",
        method: "memory.stats",
        properties: r#""sample":{"type":"integer","minimum":0,"maximum":1000,"default":0,"description":"Estimates with so many searches how much of the true nearest is found; each costs a scan of everything."}"#,
        required: "[]",
        hints: READS,
    },
    Tool {
        name: "swarm_status",
        title: "Status of the swarm",
        description: "Shows the node's figures: agents, messages and tasks, in total and for each \
            core.",
        method: "node.stats",
        properties: "",
        required: "[]",
        hints: READS,
    },
    Tool {
        name: "swarm_health",
        title: "Health of the swarm",
        description: "Tells in one look whether the node takes work, how much waits, and whether \
            tasks die or agents crash.",
        method: "node.health",
        properties: "",
        required: "[]",
        hints: READS,
    },
];
