//! async-openai, unchanged, pointed at the tenant API: prints one JSON line per case.
use async_openai::config::OpenAIConfig;
use async_openai::error::OpenAIError;
use async_openai::types::chat::{
    ChatCompletionRequestUserMessageArgs, ChatCompletionResponseMessageAnnotation, CreateChatCompletionRequest,
    CreateChatCompletionRequestArgs,
};
use async_openai::Client;
use futures::StreamExt;
use serde_json::{json, Value};
use std::env;

fn ask(model: &str, question: &str) -> CreateChatCompletionRequest {
    let message = ChatCompletionRequestUserMessageArgs::default().content(question).build().unwrap();
    CreateChatCompletionRequestArgs::default().model(model).messages([message.into()]).build().unwrap()
}

fn client(key: &str) -> Client<OpenAIConfig> {
    let url = env::var("CLIENTS_URL").unwrap();
    Client::with_config(OpenAIConfig::new().with_api_base(url).with_api_key(key))
}

fn told(name: &str, found: Result<Value, OpenAIError>) {
    match found {
        Ok(value) => println!("{}", json!({"case": name, "found": value})),
        Err(OpenAIError::ApiError(error)) => println!("{}", json!({"case": name, "code": error.api_error.code})),
        Err(error) => println!("{}", json!({"case": name, "error": error.to_string()})),
    }
}

async fn whole(client: &Client<OpenAIConfig>, model: &str, question: &str) -> Result<Value, OpenAIError> {
    let answer = client.chat().create(ask(model, question)).await?;
    let message = &answer.choices[0].message;
    let notes: Vec<Value> = message
        .annotations
        .iter()
        .flatten()
        .map(|note| match note {
            ChatCompletionResponseMessageAnnotation::UrlCitation { url_citation } => json!(url_citation),
        })
        .collect();
    Ok(json!({"text": message.content, "notes": notes, "tokens": answer.usage.map(|usage| usage.total_tokens)}))
}

async fn streamed(client: &Client<OpenAIConfig>, model: &str, question: &str) -> Result<Value, OpenAIError> {
    let mut stream = client.chat().create_stream(ask(model, question)).await?;
    let mut text = String::new();
    while let Some(chunk) = stream.next().await {
        for choice in chunk?.choices {
            text.push_str(choice.delta.content.as_deref().unwrap_or(""));
        }
    }
    Ok(json!({"text": text}))
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let question = env::var("CLIENTS_QUESTION").unwrap();
    let own = client(&env::var("CLIENTS_KEY").unwrap());
    for model in ["support", "plain"] {
        told(&format!("whole {model}"), whole(&own, model, &question).await);
        told(&format!("streamed {model}"), streamed(&own, model, &question).await);
    }
    told("unknown", whole(&own, "nobody", &question).await);
    told("wrong key", whole(&client("ak_wrong"), "plain", &question).await);
    let models = own.models().list().await;
    told("models", models.map(|list| json!(list.data.iter().map(|model| &model.id).collect::<Vec<_>>())));
}
